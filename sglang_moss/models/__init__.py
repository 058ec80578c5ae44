"""Models that SGLang's registry scans."""
