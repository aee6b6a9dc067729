"""Forms: text that a person typed becomes a `DeploymentSpec`, or messages beside the fields."""
