"""A simulated vLLM 0.32.0: real flags, real memory arithmetic, real metric names; time by a model of the GPU."""
