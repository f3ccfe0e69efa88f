"""The study itself: foundations, abilities, arms, runs, statistics, claims."""
