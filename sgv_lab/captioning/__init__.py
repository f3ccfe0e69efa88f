"""Captions at scale: collected from an endpoint, or written by a model, through one writer."""
