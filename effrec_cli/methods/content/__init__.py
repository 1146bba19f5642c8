"""Training on what items say: the tasks that a content encoder and a collaborative filter share."""
