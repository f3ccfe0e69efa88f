"""The study itself: arms, runs, statistics, claims."""
