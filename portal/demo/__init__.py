"""The whole of Slipway on one machine: PostgreSQL, Redis, Prometheus, the sandbox and the site."""
