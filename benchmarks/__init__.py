"""Every claim about cost and quality, measured against a peer in the same run."""
