#!/usr/bin/env python3
"""Watches a stream of JPEGs as Home Assistant's MJPEG camera does it, with aiohttp.

usage: home.py URL PICTURES    the access code is read from standard input

The head has to come within ten seconds and has to be no error. The still picture is the first JPEG, cut
out of the stream by its markers. Then the multipart stream is read on; each picture's length is printed.
"""

import asyncio
import sys

import aiohttp


async def watch(url, wanted, code):
    auth = aiohttp.BasicAuth("bblp", code)
    async with aiohttp.ClientSession(auth=auth) as session:
        async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else _forever():
            response = await session.get(url)
        async with response:
            if response.status >= 400:
                print(response.status, (await response.text()).strip())
                sys.exit(4)
            data = b""
            async for chunk in response.content.iter_chunked(102400):
                data += chunk
                end = data.find(b"\xff\xd9")
                if end != -1:
                    begin = data.find(b"\xff\xd8")
                    print("still", end + 2 - begin, flush=True)
                    break
        async with await session.get(url) as response:
            reader = aiohttp.MultipartReader.from_response(response)
            for _ in range(wanted):
                part = await reader.next()
                picture = bytes(await part.read())
                if part.headers["Content-Type"] != "image/jpeg":
                    sys.exit(f"a part of {part.headers}")
                if picture[:4] != b"\xff\xd8\xff\xe0" or picture[-2:] != b"\xff\xd9":
                    sys.exit("no JPEG")
                print("part", len(picture), flush=True)


class _forever:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return False


asyncio.run(watch(sys.argv[1], int(sys.argv[2]), sys.stdin.readline().strip()))
