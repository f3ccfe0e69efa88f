"""Everything that is drawn: what the paper reports, caption datasets, benchmarks, the study."""
