-- Ask to work on one effect.
-- Uses lib_admit
-- KEYS[1] string guard   KEYS[2…] as lib_admit says, from the kill switch on
-- ARGV[1] token of this try   ARGV[2] lease in ms   ARGV[3] what kind of effect   ARGV[4] distrust: "1" or "0"
-- ARGV[5] number of pauses   ARGV[6] circuit   ARGV[7] request
-- Returns what lib_admit says.
return admit(KEYS[1], 2, ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7])
