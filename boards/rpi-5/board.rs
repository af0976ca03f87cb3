// Raspberry Pi 5: four Cortex-A76 cores of which one is used, AES instructions, 1 to 16 GiB.
Board {
    name: "rpi-5",
    memory: 64 * MIB,
    suites: Suites::AesFirst,
    pre_auth: 16,
    pre_auth_per_address: 12,
    clients: Clients { mqtt: 72, chamber: 32, rtsp: 16, ftp: 16, http: 32 },
    mqtt: Mqtt {
        inbox: 64 * KIB,
        // A usual full state with its head, in one system call.
        outbox: 20 * KIB,
        ring: 64,
        requests: 30,
        small: Shape { count: 128, size: 2 * KIB },
        large: Shape { count: 32, size: 64 * KIB },
    },
    chamber: Chamber {
        // 1280×720: 40 to 120 KiB were seen, 172 KiB from an A2L (01.01.05.00).
        picture: 320 * KIB,
        ring: 2,
    },
    rtsp: Rtsp {
        // 1080p at a few Mbit/s: key frames of 60 to 150 KiB.
        picture: 256 * KIB,
        ring: 1408,
    },
}
