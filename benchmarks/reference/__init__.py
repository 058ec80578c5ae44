"""The reference's golden data, and an engine that speaks them."""
