-- Who holds what, as far as others wait for it. start_ticks: when the process of pid began, in clock ticks since the
-- machine did, which tells it from a later one of that number; null where that is not known. task, awaits_children: of
-- reservations now, as of leases; null if they were not given.
ALTER TABLE pawl_lease ADD COLUMN start_ticks INTEGER;
ALTER TABLE pawl_path_reservation ADD COLUMN start_ticks INTEGER;
ALTER TABLE pawl_path_reservation ADD COLUMN task TEXT;
ALTER TABLE pawl_path_reservation ADD COLUMN awaits_children INTEGER;

CREATE INDEX pawl_lease_awaits_children ON pawl_lease (pid) WHERE awaits_children = 1;
CREATE INDEX pawl_path_reservation_awaits_children ON pawl_path_reservation (pid) WHERE awaits_children = 1;
