"""Hugging Face Transformers models on torch, from safetensors or weights-only torch files."""

from loaderd.frameworks.transformers.framework import TransformersFramework

__all__ = ["TransformersFramework"]
