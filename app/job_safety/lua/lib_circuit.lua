-- Name the keys and limits of one circuit.
-- first: index in KEYS of its four: hash state, zset window of calls, zset permits of probes, stream of all changes
-- policy: "job_type mode window_ms window_calls min_calls rate_percent consecutive open_ms open_max_ms probes lease_ms
--   kept config_hash", or "" for no circuit at all   mode: off | observe | enforce | exempt (counts, and never blocks)
-- Returns a table, or nil if there is nothing to ask. A circuit that a script names twice is the same table.
local circuits = {}
local function circuit_of(first, policy)
  if (policy or '') == '' then return nil end
  if circuits[KEYS[first]] then return circuits[KEYS[first]] end
  local word =
    {string.match(policy, '^(%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ?(%S*)$')}
  if not word[1] then error('no policy of a circuit: ' .. policy) end
  if word[2] == 'off' then return nil end
  circuits[KEYS[first]] = {
    state = KEYS[first], window = KEYS[first + 1], permits = KEYS[first + 2], changes = KEYS[first + 3],
    job = word[1], mode = word[2], window_ms = tonumber(word[3]), window_calls = tonumber(word[4]),
    min_calls = tonumber(word[5]), rate = tonumber(word[6]), consecutive = tonumber(word[7]),
    open_ms = tonumber(word[8]), open_max_ms = tonumber(word[9]), probes = tonumber(word[10]),
    lease_ms = tonumber(word[11]), kept = tonumber(word[12]), hash = word[13],
  }
  return circuits[KEYS[first]]
end
