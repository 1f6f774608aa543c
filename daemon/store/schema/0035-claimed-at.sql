-- claimed_at: when the last claim of the head of a claim was made, in elapsed time; null for a claim made before this.
ALTER TABLE pawl_batch ADD COLUMN claimed_at INTEGER;
