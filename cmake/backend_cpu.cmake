# room_backend: the CPU's operators. The kernels_*.c files are compiled once per instruction set
# (object libraries, names ending in KERNELS_SUFFIX), and so are the reproducible ones; cpu.c
# chooses among them at run time. Elsewhere than on x86-64 there is only plain C.
file(GLOB backend_sources CONFIGURE_DEPENDS src/backend/*.c src/backend/cpu/*.c)
file(GLOB reproducible_sources CONFIGURE_DEPENDS src/backend/cpu/reproducible/*.c)
file(GLOB kernel_sources CONFIGURE_DEPENDS src/backend/cpu/kernels*.c)
list(REMOVE_ITEM backend_sources ${kernel_sources})
add_library(room_backend STATIC ${backend_sources})
target_include_directories(room_backend PUBLIC include src)
target_link_libraries(room_backend PUBLIC room_tensor ${DNNL_LIBRARY} OpenMP::OpenMP_C)
set(backend_objects $<TARGET_OBJECTS:room_backend>)  # the kernels' with them, for the library

# tessera_kernels(NAME SUFFIX SOURCES FLAGS...): the object library NAME_SUFFIX. No errno and no
# traps is what vectorising needs; neither changes a result.
function(tessera_kernels name suffix sources)
  add_library(${name}_${suffix} OBJECT ${sources})
  target_include_directories(${name}_${suffix} PRIVATE include src)
  target_compile_definitions(${name}_${suffix} PRIVATE KERNELS_SUFFIX=${suffix})
  target_compile_options(${name}_${suffix} PRIVATE -fno-math-errno -fno-trapping-math ${ARGN})
  target_link_libraries(${name}_${suffix} PRIVATE OpenMP::OpenMP_C)
  target_sources(room_backend PRIVATE $<TARGET_OBJECTS:${name}_${suffix}>)
  set(backend_objects ${backend_objects} $<TARGET_OBJECTS:${name}_${suffix}> PARENT_SCOPE)
endfunction()

# Multiplications and additions may fuse, as the compiler likes; in the reproducible ones they never do.
set(fusing -ffp-contract=fast)
set(exact -ffp-contract=off)
tessera_kernels(kernels plain "${kernel_sources}" ${fusing})
tessera_kernels(reproducible plain "${reproducible_sources}" ${exact})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -march=x86-64-v3)
  set(avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  tessera_kernels(kernels avx2 "${kernel_sources}" ${fusing} ${avx2})
  tessera_kernels(kernels avx512 "${kernel_sources}" ${fusing} ${avx512})
  tessera_kernels(kernels avx512bf16 "${kernel_sources}" ${fusing} ${avx512} -mavx512bf16)
  tessera_kernels(kernels amx "${kernel_sources}" ${fusing} ${avx512} -mavx512bf16 -mamx-tile -mamx-bf16)
  tessera_kernels(reproducible avx2 "${reproducible_sources}" ${exact} ${avx2})
  tessera_kernels(reproducible avx512 "${reproducible_sources}" ${exact} ${avx512})
  target_compile_definitions(room_backend PRIVATE BACKEND_X86_VARIANTS)
endif()
