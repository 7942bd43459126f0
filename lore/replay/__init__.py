"""What was lived through and is sampled from: ring buffer, device replay, memory check. No learning."""
