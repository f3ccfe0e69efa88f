"""Caption datasets: sources and readers, statistics, lexical composition, quality and defects."""
