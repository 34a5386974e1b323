"""Code that benchmarks share: networks with their images, records of results, plans."""
