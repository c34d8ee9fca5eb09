"""The configuration: pipeline.yaml to frozen settings, recipes, and which weights are meant.

The only package that reads YAML. It must not know torch, nor open a file besides the settings and
the weights that they name.
"""
