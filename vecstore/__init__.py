"""Vector search whose only durable state is object storage."""
