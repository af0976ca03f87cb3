// Raspberry Pi Zero, Zero W, 1: one ARM1176 core at 700-1000 MHz, no NEON, 512 MiB (256 MiB on
// early boards). The slowest board we promise.
Board {
    name: "rpi-zero",
    memory: 18 * MIB,
    // ring's AES takes 8 times the instructions of its ChaCha20 here.
    suites: Suites::ChaChaFirst,
    // A handshake keeps the core busy for a quarter of a second: few at a time.
    pre_auth: 4,
    pre_auth_per_address: 3,
    clients: Clients { mqtt: 16, chamber: 10, rtsp: 6, ftp: 4, http: 8 },
    mqtt: Mqtt {
        inbox: 32 * KIB,
        // A usual full state with its head, in one system call.
        outbox: 20 * KIB,
        ring: 16,
        requests: 6,
        small: Shape { count: 48, size: 2 * KIB },
        large: Shape { count: 8, size: 64 * KIB },
    },
    chamber: Chamber {
        // 1280×720: 40 to 120 KiB were seen, 172 KiB from an A2L (01.01.05.00).
        picture: 320 * KIB,
        ring: 2,
    },
    rtsp: Rtsp {
        // 1080p at a few Mbit/s: key frames of 60 to 150 KiB.
        picture: 192 * KIB,
        ring: 352,
    },
}
