//! Connections that send more than anybody could mean, and streams that nobody ends.

use anyhow::Result;
use tests::Server;

use crate::beside::{Beside, ROUNDS};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, call, frame, message,
};
use crate::no_panics;

const MIB: u64 = 1 << 20;

/// Client streams have odd numbers.
fn stream(number: usize) -> u32 {
    2 * number as u32 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let port = server.client_port();
    let range = block(&call("/etcdserverpb.KV/Range"));
    let watch = block(&call("/etcdserverpb.Watch/Watch"));
    let cancel = 8_u32.to_be_bytes();

    // CVE-2023-44487: streams that are opened and reset at once.
    let reset = |headers: &[u8], number: usize| {
        (0..100)
            .flat_map(|more| {
                let stream = stream(100 * number + more);
                [frame(HEADERS, END_HEADERS, stream, headers), frame(RST_STREAM, 0, stream, &cancel)].concat()
            })
            .collect::<Vec<u8>>()
    };
    for (what, headers) in [("reads", &range), ("watches", &watch)] {
        let beside = Beside::start(&server).await?;
        let (rounds, cut) = Http2::connect(port, &[])?.flood(1000, |number| reset(headers, number));
        println!("rapid reset of {what}: {rounds} hundred, cut: {cut}");
        beside.end("rapid reset", 64 * MIB).await?;
    }

    // CVE-2024-27316: headers that never end, large and empty.
    for piece in [vec![0; 16 << 10], block(&[("a", "b")]), Vec::new()] {
        let beside = Beside::start(&server).await?;
        let mut connection = Http2::connect(port, &[])?;
        connection.send(&frame(HEADERS, 0, 1, &range))?;
        let (frames, cut) = connection.flood(1_000_000, |_| frame(CONTINUATION, 0, 1, &piece));
        println!("continuations of {} bytes: {frames}, cut: {cut}", piece.len());
        assert!(cut, "{frames} frames of headers");
        beside.end("endless headers", 64 * MIB).await?;
    }

    // Frames that ask for an answer each, which nobody reads; and some that mean nothing.
    let window = [0, 0, 0, 1];
    let kinds: [(&str, Vec<u8>); 6] = [
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("priorities", frame(2, 0, 1, &[0, 0, 0, 0, 7])),
        ("unknown frames", frame(0x77, 0xff, 9, &[7; 100])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &window)),
        ("resets of nothing", frame(RST_STREAM, 0, 1, &cancel)),
    ];
    for (what, bytes) in kinds {
        let beside = Beside::start(&server).await?;
        let many = bytes.repeat(500);
        let (rounds, cut) = Http2::connect(port, &[])?.flood(2_000, |_| many.clone());
        println!("{what}: {} cut: {cut}", 500 * rounds);
        beside.end(what, 64 * MIB).await?;
    }

    // Data of no bytes in a call that goes on.
    let beside = Beside::start(&server).await?;
    let mut connection = Http2::connect(port, &[])?;
    connection.send(&frame(HEADERS, END_HEADERS, 1, &watch))?;
    let (rounds, cut) = connection.flood(1_000_000, |_| frame(DATA, 0, 1, &[]).repeat(100));
    println!("empty data: {rounds} hundred, cut: {cut}");
    assert!(cut);
    beside.end("empty data", 64 * MIB).await?;

    // A header that is sent once and named ten thousand times.
    let beside = Beside::start(&server).await?;
    let mut bomb = range.clone();
    // With indexing, 4,000 bytes; then the newest entry of the table, again and again.
    bomb.push(0x40);
    bomb.extend(&block(&[("x", &"y".repeat(4000))])[1..]);
    bomb.extend([0x80 | 62; 10_000]);
    let mut connection = Http2::connect(port, &[])?;
    let (rounds, cut) =
        connection.flood(200, |number| frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &bomb));
    println!("header bombs: {rounds} cut: {cut}");
    beside.end("header bombs", 64 * MIB).await?;
    no_panics(&server);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_nobody_ends() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    for path in [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Nothing/Nothing",
    ] {
        let mut beside = Beside::start(&server).await?;
        let headers = block(&call(path));
        let mut connection = Http2::connect(server.client_port(), &[])?;
        let begun = message(&[0; 1])[..3].to_vec();
        let (rounds, cut) = connection.flood(100, |number| {
            (0..100)
                .flat_map(|more| {
                    let stream = stream(100 * number + more);
                    [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, 0, stream, &begun)].concat()
                })
                .collect()
        });
        println!("{path}: {} calls, cut: {cut}", 100 * rounds);
        beside.served(ROUNDS).await?;
        beside.end(path, 512 * MIB).await?;
    }
    no_panics(&server);
    Ok(())
}
