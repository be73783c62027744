<?php
// A receiver of webhooks in plain PHP: php -S 127.0.0.1:8000 index.php

const TOLERANCE_SECONDS = 300;

$key = secret_key((string) getenv('WEBHOOK_SECRET'));
if ($key === null) {
    error_log('WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes');
    http_response_code(500);
    exit;
}

if ($_SERVER['REQUEST_METHOD'] !== 'POST' || $_SERVER['REQUEST_URI'] !== '/webhooks') {
    http_response_code(404);
    exit;
}

// The signature covers the bytes as they came: read them before anything parses them.
$body = file_get_contents('php://input');
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
$timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';

if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS
    || !is_signed($key, $body, $id, $timestamp, $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '')) {
    http_response_code(401);
    exit;
}

// At least once means that an event may come again. Creating the file fails if it is there: only one wins.
// In real life: insert the id into a table where it is the primary key, with the work to do.
$seen = (getenv('SEEN_DIR') ?: sys_get_temp_dir()) . '/webhook-' . hash('sha256', $id);
if (@fopen($seen, 'x') !== false) {
    $event = json_decode($body, true);
    // Only note here what is to be done; a worker does it after the answer.
    if (file_put_contents('php://stdout', "processed {$event['id']} {$event['type']}\n") === false) {
        unlink($seen);
        http_response_code(500);
        exit;
    }
} elseif (!file_exists($seen)) {
    // Nothing is known of it and nothing can be noted, as on a full disk: it must come again.
    error_log("cannot create $seen");
    http_response_code(500);
    exit;
}
http_response_code(204);

// whsec_…; anything shorter or cut off would let others sign too, most of all the empty key of a missing variable.
function secret_key(string $secret): ?string
{
    $key = (string) base64_decode(substr($secret, strlen('whsec_')), true);
    return strlen($key) >= 24 && $secret === 'whsec_' . base64_encode($key) ? $key : null;
}

// https://github.com/standard-webhooks/standard-webhooks: one signature for each secret that is live.
function is_signed(string $key, string $body, string $id, string $timestamp, string $header): bool
{
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $header) as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}
