"""The sandbox: a whole small GPU cluster on one machine, for trying Slipway out and for its tests."""
