"""XLA compiling for tests: programs that run once need not be fast."""

# Without LLVM's passes, and with XLA's older way to emit a fusion, a tiny engine is compiled in a
# quarter of the processor time: 0.73 s instead of 3.3, over eight devices 2.0 s instead of 8.3.
QUICK = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
