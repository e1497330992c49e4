"""Config schema, YAML loading and the command line that the scripts share."""
