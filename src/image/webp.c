/* WebP files (RFC 9649; libwebp does the work); see kinds.h. Of an animation the first frame is
 * laid on a canvas that is transparent. */
#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include "base/error.h"
#include "image/exif.h"
#include "image/kinds.h"

/* A chunk that holds the orientation; EXIF before XMP. */
static int orientation_of(const struct image_file *file) {
    const WebPData data = {file->data, file->length};
    WebPDemuxer *demuxer = WebPDemux(&data);
    WebPChunkIterator chunk;
    int orientation = 0;
    if (demuxer == NULL) return 0;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk)) {
        orientation = exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    if (orientation == 0 && WebPDemuxGetChunk(demuxer, "XMP ", 1, &chunk)) {
        orientation = exif_orientation_of_xmp((const char *)chunk.chunk.bytes, chunk.chunk.size);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    WebPDemuxDelete(demuxer);
    return orientation;
}

static bool read_first_frame(const struct image_file *file, struct image *out) {
    const WebPData data = {file->data, file->length};
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, NULL);
    WebPAnimInfo info;
    uint8_t *canvas = NULL; /* [height, width, 4], the decoder's */
    int timestamp;
    bool good = decoder != NULL && WebPAnimDecoderGetInfo(decoder, &info) && info.canvas_width == (uint32_t)out->width &&
                info.canvas_height == (uint32_t)out->height && WebPAnimDecoderGetNext(decoder, &canvas, &timestamp);
    for (size_t i = 0; good && i < (size_t)out->width * (size_t)out->height; i++) memcpy(out->pixels + i * 3, canvas + i * 4, 3);
    WebPAnimDecoderDelete(decoder);
    return good;
}

tessera_status webp_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    WebPBitstreamFeatures features;
    *out = (struct image){0};
    if (WebPGetFeatures(file->data, file->length, &features) != VP8_STATUS_OK)
        return image_broken(file, "its header is not that of a WebP picture", error);
    TRY(image_check_size(file, features.width, features.height, error));
    TRY(image_new(features.width, features.height, out, error));
    bool good = features.has_animation
                    ? read_first_frame(file, out)
                    : WebPDecodeRGBInto(file->data, file->length, out->pixels, image_values(out), features.width * 3) != NULL;
    if (good) {
        *orientation = orientation_of(file);
        return TESSERA_OK;
    }
    image_free(out);
    return image_broken(file, "its pixels cannot be decoded", error);
}
