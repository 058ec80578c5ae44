"""HTTP beyond SGLang's own endpoints."""
