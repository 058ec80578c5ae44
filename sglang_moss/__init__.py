"""MOSS-TTSD on stock SGLang. Importing this package does nothing; `sglang_moss.plugin.register` acts."""

__version__ = "0.1.0"
TESTED_SGLANG = "0.5.23"
