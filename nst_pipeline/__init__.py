"""Neural style transfer for folders of pictures."""

__version__ = "0.1.0"

CONFIG_NAME = "pipeline.yaml"
