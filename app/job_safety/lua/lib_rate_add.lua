-- Count `amount` against a limit now, and drop the parts that its trailing window has left behind.
local function rate_add(limit, now, amount)
  local newest = math.floor(now / (limit.window / 10))
  if limit.parts then
    limit.parts[#limit.parts], limit.used = limit.parts[#limit.parts] + amount, limit.used + amount
  end
  if redis.call('HINCRBY', limit.key, string.format('%d:%d', limit.window, newest), amount) > amount then return end
  for _, name in ipairs(redis.call('HKEYS', limit.key)) do
    local window, part = string.match(name, '^(%d+):(%d+)$')
    if tonumber(window) == limit.window and tonumber(part) < newest - 10 then redis.call('HDEL', limit.key, name) end
  end
  redis.call('PEXPIRE', limit.key, 100000000)
end
