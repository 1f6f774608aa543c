-- How a command rests between deliveries, and whether one of them has ended by itself.
ALTER TABLE pawl_command ADD COLUMN retry TEXT;
ALTER TABLE pawl_command ADD COLUMN lost_before INTEGER;
