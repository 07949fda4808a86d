"""What a model can still do: perplexity and closed-book recall."""
