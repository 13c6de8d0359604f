"""What ``tools/benchmarks`` measures with: training steps, relation losses and the length of runs."""
