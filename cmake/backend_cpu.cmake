# room_backend: the CPU's operators. The kernels_*.c files are compiled once per instruction set (object libraries, names ending in
# KERNELS_SUFFIX); cpu.c chooses among them at run time. Elsewhere than on x86-64 there is only the baseline.
file(GLOB backend_sources CONFIGURE_DEPENDS src/backend/*.c src/backend/cpu/*.c)
file(GLOB kernel_sources CONFIGURE_DEPENDS src/backend/cpu/kernels*.c)
list(REMOVE_ITEM backend_sources ${kernel_sources})
add_library(room_backend STATIC ${backend_sources})
target_include_directories(room_backend PUBLIC include src)
target_link_libraries(room_backend PUBLIC room_tensor ${DNNL_LIBRARY} OpenMP::OpenMP_C)
set(backend_objects $<TARGET_OBJECTS:room_backend>)  # the kernels' with them, for the library

function(tessera_kernels suffix)
  add_library(kernels_${suffix} OBJECT ${kernel_sources})
  target_include_directories(kernels_${suffix} PRIVATE include src)
  target_compile_definitions(kernels_${suffix} PRIVATE KERNELS_SUFFIX=${suffix})
  # No errno, no traps, multiplications and additions may fuse: what vectorising needs, and nothing that changes NaN or infinity.
  target_compile_options(kernels_${suffix} PRIVATE -fno-math-errno -fno-trapping-math -ffp-contract=fast ${ARGN})
  target_link_libraries(kernels_${suffix} PRIVATE OpenMP::OpenMP_C)
  target_sources(room_backend PRIVATE $<TARGET_OBJECTS:kernels_${suffix}>)
  set(backend_objects ${backend_objects} $<TARGET_OBJECTS:kernels_${suffix}> PARENT_SCOPE)
endfunction()

tessera_kernels(baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  tessera_kernels(avx2 -march=x86-64-v3)
  tessera_kernels(avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  tessera_kernels(avx512bf16 -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512)
  tessera_kernels(amx -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16 -mprefer-vector-width=512)
  target_compile_definitions(room_backend PRIVATE BACKEND_X86_VARIANTS)
endif()
