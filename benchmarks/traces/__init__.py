"""What a server's GPU does, from traces that SGLang's profiler records."""
