# A receiver of webhooks with WEBrick; the same lines serve in Rack, Sinatra or Rails.
require "base64"
require "json"
require "openssl"
require "set"
require "webrick"

TOLERANCE_SECONDS = 300

# whsec_…; anything shorter or cut off would let others sign too.
def key(secret)
  key = Base64.strict_decode64(secret.delete_prefix("whsec_"))
  return key if key.bytesize >= 24 && secret == "whsec_" + Base64.strict_encode64(key)
  raise ArgumentError, "too short"
rescue ArgumentError
  abort "WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes"
end
KEY = key(ENV.fetch("WEBHOOK_SECRET", ""))

# https://github.com/standard-webhooks/standard-webhooks: one signature for each secret that is live.
def signed?(request, body)
  id, timestamp = request["webhook-id"].to_s, request["webhook-timestamp"].to_s
  return false if (Time.now.to_i - Integer(timestamp, 10)).abs > TOLERANCE_SECONDS

  expected = "v1," + Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body))
  request["webhook-signature"].to_s.split(" ").any? { |signature| OpenSSL.secure_compare(signature, expected) }
rescue ArgumentError
  false
end

seen = Set.new # in real life: a table with the id as its primary key
lock = Mutex.new
work = Queue.new # in real life: a job table, written before the answer
Thread.new do
  loop do
    event = work.pop
    puts "processed #{event["id"]} #{event["type"]}"
  end
end

$stdout.sync = true
server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ENV.fetch("PORT", 8000).to_i, AccessLog: [])
server.mount_proc("/webhooks") do |request, response|
  # The signature covers the bytes as they came: verify before parsing.
  body = request.body.to_s.b
  response.status = 401
  next unless signed?(request, body)

  # At least once means that an event may come again: its id tells.
  is_new = lock.synchronize { !seen.add?(request["webhook-id"]).nil? }
  work << JSON.parse(body) if is_new
  response.status = 204
end
trap("TERM") { server.shutdown }
server.start
