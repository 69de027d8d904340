"""Devices reached through a page of a browser, which runs WGSL in the browser's WebGPU.

May import `measure` of `wgtune.devices`, and its data modules. The page's script is in ``web/lender``. Reading order:

- `worker`: `BrowserWorker`, which measures through whichever page the browser has open.
- `backend`: `BrowserBackend`, the operations as messages to a page.
- `page_link`: requests to one page, and their answers.
- `page_registry`: registered browsers, and their pages.
- `identity`: from a page's description of its GPU to a device.
- `server`: HTTP and WebSocket server of the page.
"""
