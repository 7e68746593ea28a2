-- End or prolong a lease, if it is still ours, and tell the circuit and the limits what the call has shown.
-- A script because "is it ours?" and the change must be one step: an owner that was paused must not touch its successor's.
-- Uses lib_guard
-- KEYS, ARGV and what it returns: as lib_guard says, from 1 on.
return settle_guard(1, 1)
