"""What the long measurements share: tiny models, planned jobs, clients that keep a record, and what disturbs them."""
