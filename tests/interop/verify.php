<?php
// Asks PHP's hash_hmac and hash_equals, as a receiver would. A line of JSON in, a line of JSON out:
// {verifier, secret, headers, body (base64)} -> {ok, error}

while (($line = fgets(STDIN)) !== false) {
    $request = json_decode($line, true);
    $headers = $request['headers'];
    $body = base64_decode($request['body']);
    $signature = $headers['x-signature'] ?? $headers['x-webhook-signature'] ?? $headers['x-hub-signature-256'] ?? '';
    $prefix = isset($headers['x-signature']) ? '' : 'sha256=';
    $ok = hash_equals($prefix . hash_hmac('sha256', $body, $request['secret']), $signature);
    echo json_encode($ok ? ['ok' => true] : ['ok' => false, 'error' => 'no signature matches']), "\n";
}
