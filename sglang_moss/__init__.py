"""MOSS-TTSD on stock SGLang. Importing this package does nothing; `sglang_moss.plugin.register` acts."""

__version__ = "0.1.0"
