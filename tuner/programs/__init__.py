"""Programs that kernels become, kept between runs: `cache`."""
