"""The process that owns one device: it runs jobs one after another and streams what happens."""
