"""Lists the images with weights that the sandbox's nodes can pull, by digest, as a wish names them."""

from __future__ import annotations

import argparse

from sandbox.node.images import MODEL_TAGS, model_image, public_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> None:
    """Print a line for each: where the weights lie in it, and its address."""
    for model in public_models():
        for tag, (folder, _) in MODEL_TAGS.items():
            print(f"{folder:<8} oci://{model_image(model, tag).canonical}")
