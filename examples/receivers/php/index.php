<?php
// A receiver of webhooks in plain PHP: php -S 127.0.0.1:8000 index.php

const TOLERANCE_SECONDS = 300;

if ($_SERVER['REQUEST_METHOD'] !== 'POST' || $_SERVER['REQUEST_URI'] !== '/webhooks') {
    http_response_code(404);
    exit;
}

// The signature covers the bytes as they came: read them before anything parses them.
$body = file_get_contents('php://input');
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
$timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';

if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS
    || !is_signed($body, $id, $timestamp, $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '')) {
    http_response_code(401);
    exit;
}

// At least once means that an event may come again. Creating the file fails if it is there: only one wins.
// In real life: insert the id into a table where it is the primary key, with the work to do.
$seen = (getenv('SEEN_DIR') ?: sys_get_temp_dir()) . '/webhook-' . hash('sha256', $id);
if (@fopen($seen, 'x') !== false) {
    $event = json_decode($body, true);
    // Only note here what is to be done; a worker does it after the answer.
    file_put_contents('php://stdout', "processed {$event['id']} {$event['type']}\n");
}
http_response_code(204);

// https://github.com/standard-webhooks/standard-webhooks: one signature for each secret that is live.
function is_signed(string $body, string $id, string $timestamp, string $header): bool
{
    $key = base64_decode(substr(getenv('WEBHOOK_SECRET'), strlen('whsec_')));
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $header) as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}
