/* See client_folder.h. */
#include "split/client_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { CHUNK = 1 << 20 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a client's folder");
}

/* What holds a denoiser's weights, in any of the forms that folders have them. */
static bool is_weights(const char *name) {
    static const char *const endings[] = {".safetensors", ".bin", ".gguf", ".index.json", ".msgpack", ".h5", ".ckpt"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t end = strlen(endings[i]);
        if (length > end && strcmp(name + length - end, endings[i]) == 0) return true;
    }
    return false;
}

static tessera_status copy_bytes(FILE *from, const char *path, const char *to, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(to, &output, error));
    char *chunk = malloc(CHUNK);
    size_t count = 0;
    while (chunk != NULL && (count = fread(chunk, 1, CHUNK, from)) > 0 && fwrite(chunk, 1, count, output.stream) == count) continue;
    tessera_status status = chunk == NULL                           ? out_of_memory(error)
                            : ferror(from) || ferror(output.stream) ? error_set_errno(error, "%s: cannot be copied to %s", path, to)
                                                                    : TESSERA_OK;
    free(chunk);
    if (status == TESSERA_OK) return file_output_commit(&output, error);
    file_output_discard(&output);
    return status;
}

static tessera_status copy_file(const char *path, const char *to, tessera_error *error) {
    if (linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return TESSERA_OK;
    FILE *from = fopen(path, "rb");
    if (from == NULL) return error_set_errno(error, "%s", path);
    tessera_status status = copy_bytes(from, path, to, error);
    fclose(from);
    return status;
}

static tessera_status copy_folder(const char *from, const char *to, const char *denoiser, tessera_error *error);

static tessera_status copy_entry(const char *from, const char *to, const char *name, const char *denoiser, tessera_error *error) {
    char *path = file_join(from, name), *target = file_join(to, name);
    tessera_status status = TESSERA_OK;
    if (path == NULL || target == NULL)
        status = out_of_memory(error);
    else if (file_is_folder(path))
        status = copy_folder(path, target, denoiser, error);
    else if (strcmp(from, denoiser) != 0 || !is_weights(name))
        status = copy_file(path, target, error);
    free(path);
    free(target);
    return status;
}

/* All but the denoiser's weights, and names that begin with a point. */
static tessera_status copy_folder(const char *from, const char *to, const char *denoiser, tessera_error *error) {
    if (mkdir(to, 0777) != 0)
        return errno == EEXIST ? error_set(error, TESSERA_ERROR_ARGUMENT, "--client-folder %s: is there already: name a new folder", to)
                               : error_set_errno(error, "%s: no folder can be made", to);
    DIR *list = opendir(from);
    if (list == NULL) return error_set_errno(error, "%s", from);
    tessera_status status = TESSERA_OK;
    for (const struct dirent *entry; status == TESSERA_OK && (entry = readdir(list)) != NULL;)
        if (entry->d_name[0] != '.') status = copy_entry(from, to, entry->d_name, denoiser, error);
    closedir(list);
    return status;
}

static tessera_status write_rest(const char *denoiser, const char *folder, const char *output, const struct split_range *range,
                                 tessera_error *error) {
    char *path = NULL;
    if (asprintf(&path, "%s/%s/diffusion_pytorch_model.safetensors", output, denoiser + strlen(folder)) < 0) return out_of_memory(error);
    tessera_status status = part_file_write_rest(denoiser, range, path, error);
    free(path);
    return status;
}

tessera_status client_folder_write(const char *folder, const struct split_range *range, const char *output, tessera_error *error) {
    char *denoiser;
    TRY(part_file_denoiser_folder(folder, &denoiser, error));
    tessera_status status = strcmp(denoiser, folder) == 0
                                ? error_set(error, TESSERA_ERROR_ARGUMENT,
                                            "--client-folder %s: needs a whole model, but %s is a denoiser alone", output, folder)
                                : copy_folder(folder, output, denoiser, error);
    if (status == TESSERA_OK) status = write_rest(denoiser, folder, output, range, error);
    free(denoiser);
    return status;
}
