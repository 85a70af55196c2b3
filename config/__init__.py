"""Default settings and one TOML file per supported model."""
