"""Nodes of ComfyUI that let a server speak: this folder goes into ComfyUI's `custom_nodes`, as it is."""

from .nodes import MossSpeech, MossVoice

NODE_CLASS_MAPPINGS = {"MossTTSDSpeech": MossSpeech, "MossTTSDVoice": MossVoice}
NODE_DISPLAY_NAME_MAPPINGS = {"MossTTSDSpeech": "MOSS-TTSD Speech", "MossTTSDVoice": "MOSS-TTSD Voice"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
